-- Every table of the serving file; what a candidate or score lacks is null.

CREATE TABLE run (  -- one row
    name VARCHAR,
    built_at VARCHAR,  -- UTC, ISO 8601; the only thing that differs when the same lake is aggregated again
    forecast_version VARCHAR,
    "window" VARCHAR,
    lake VARCHAR,
    config VARCHAR  -- JSON
);

CREATE TABLE candidates (  -- all of the configuration, whatever became of them
    place BIGINT,  -- in the configuration, from 0
    candidate VARCHAR,
    candidate_id VARCHAR,  -- null where the candidate could not be resolved; shared by two names of one model
    family VARCHAR,
    source VARCHAR,
    dtype VARCHAR,
    prompt_form VARCHAR,
    quantize_bits BIGINT,
    drop_layers VARCHAR,
    parameters BIGINT,  -- as configured, else all of them
    input_embedding BIGINT,  -- of all, in an input embedding that is not the output head too; null: unknown
    active_parameters BIGINT,
    training_tokens BIGINT,
    corpus VARCHAR,
    corpus_group VARCHAR,  -- base that the corpus is a variant of
    variant VARCHAR,  -- what else than the seed tells runs of a corpus apart
    seed BIGINT,
    step BIGINT,
    vocab_size BIGINT,
    device VARCHAR,
    status VARCHAR,  -- complete; incomplete: units are still open; failed. Only complete ones have numbers.
    error VARCHAR  -- why it is not complete
);

CREATE TABLE units (  -- files of the lake that the numbers come from
    address VARCHAR,
    candidate VARCHAR,
    kind VARCHAR,  -- trajectories, choices
    task VARCHAR,
    path VARCHAR,
    rows BIGINT,
    tokens_read BIGINT,
    seconds DOUBLE,
    finished_at DOUBLE  -- Unix time
);

CREATE TABLE unscored (  -- instances that a complete candidate could not read: left out for all candidates
    kind VARCHAR,
    candidate VARCHAR,
    task VARCHAR,
    expert VARCHAR,  -- of choices: the index of the option
    instance_id VARCHAR,
    reason VARCHAR
);

CREATE TABLE failures (
    place BIGINT,
    subject VARCHAR,  -- candidate, task, measured_scores
    name VARCHAR,
    task VARCHAR,
    instance_id VARCHAR,
    error VARCHAR
);

CREATE TABLE instance_proxies (
    candidate_id VARCHAR,
    task VARCHAR,
    expert VARCHAR,
    instance_id VARCHAR,
    n_tokens BIGINT,
    n_bytes BIGINT,
    tie_share DOUBLE,  -- of the tokens, with another vocabulary entry at exactly the same logit
    {proxy_columns}
);

CREATE TABLE rbridge (  -- of solutions that came with the tokens of a frontier model
    candidate_id VARCHAR,
    task VARCHAR,
    expert VARCHAR,
    instance_id VARCHAR,
    rbridge DOUBLE  -- nats, low is better
);

CREATE TABLE choice_items (  -- options of direct evaluation
    task VARCHAR,
    instance_id VARCHAR,
    choice INTEGER,  -- from 0
    n_characters INTEGER,
    is_answer BOOLEAN
);

CREATE TABLE choice_results (
    candidate_id VARCHAR,
    task VARCHAR,
    instance_id VARCHAR,
    correct DOUBLE,  -- 0..1: 1 / k where the answer is one of k options that tie for the best
    first_choice INTEGER,  -- the first of these
    answer INTEGER
);

CREATE TABLE measured (
    candidate VARCHAR,
    task VARCHAR,
    metric VARCHAR,
    value DOUBLE,
    stderr DOUBLE,  -- null where unknown
    n_items BIGINT,  -- null for imported scores
    source VARCHAR
);

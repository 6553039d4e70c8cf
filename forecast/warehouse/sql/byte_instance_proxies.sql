-- Adds one row per (expert, instance) of one candidate and task, with the proxies over bytes as columns.
-- Sources: tokens (the lake's rows of this candidate and task),
--          dropped (task, expert, instance_id that some candidate could not read),
--          common_bytes (task, expert, instance_id, n_common: how many of the last bytes count).
INSERT INTO byte_instance_proxies
WITH token AS (
    SELECT *,
        count(*) FILTER (n_bytes > 0) OVER (
            PARTITION BY expert, instance_id ORDER BY position
            ROWS BETWEEN UNBOUNDED PRECEDING AND 1 PRECEDING
        ) AS n_before,
        count(*) FILTER (n_bytes > 0) OVER (PARTITION BY expert, instance_id) AS n_with_bytes
    FROM tokens
    ANTI JOIN dropped USING (task, expert, instance_id)
),
piece AS (  -- a token, together with those before it that stand for no bytes
    SELECT expert, instance_id, least(n_before, n_with_bytes - 1) AS place,
        sum(n_bytes)::DOUBLE AS n,
        any_value(token_id) FILTER (n_bytes > 0) AS token_id,
        count(*) AS n_tokens,
        sum(logprob::DOUBLE ORDER BY position) AS logprob,
        sum(top1_logprob::DOUBLE ORDER BY position) AS top1_logprob,
        sum(entropy::DOUBLE ORDER BY position) AS entropy,
        product(rank::DOUBLE ORDER BY position) AS rank
    FROM token
    WHERE n_with_bytes > 0
    GROUP BY ALL
),
counted AS (
    SELECT task, expert, instance_id, place, token_id, n_tokens,
        least(n, n_common - sum(n) OVER (  -- less the bytes behind it
            PARTITION BY expert, instance_id ORDER BY place
            ROWS BETWEEN 1 FOLLOWING AND UNBOUNDED FOLLOWING
        ), n_common) AS counted,
        logprob / n AS logprob,
        top1_logprob / n AS top1_logprob,
        entropy / (n * ln(256)) AS h,
        round(pow(rank, 1 / n), 12) AS rank
    FROM piece
    JOIN (SELECT * FROM common_bytes SEMI JOIN tokens USING (task)) USING (expert, instance_id)
),
byte AS (
    SELECT * FROM counted WHERE counted > 0
),
frequency AS (
    SELECT token_id, sum(counted) / (SELECT sum(counted) FROM byte) AS f
    FROM byte
    GROUP BY token_id
),
centre AS (
    SELECT expert, instance_id,
        sum(counted * -logprob ORDER BY place) / sum(counted) AS ce_mean,
        max(-logprob) - min(-logprob) <= 1e-12 * max(-logprob) AS all_equal
    FROM byte
    GROUP BY expert, instance_id
),
spread AS (
    SELECT expert, instance_id, any_value(ce_mean) AS ce_mean,
        CASE WHEN any_value(all_equal) THEN 0
        ELSE sqrt(sum(counted * pow(-logprob - ce_mean, 2) ORDER BY place) / sum(counted)) END AS ce_sd
    FROM byte JOIN centre USING (expert, instance_id)
    GROUP BY expert, instance_id
),
listed AS (
    SELECT expert, instance_id,
        sum(n_tokens)::BIGINT AS n_tokens,
        sum(counted)::BIGINT AS n_bytes,
        {byte_lists}
    FROM byte
    JOIN spread USING (expert, instance_id)
    JOIN frequency USING (token_id)
    GROUP BY expert, instance_id
),
scored AS (
    SELECT expert, instance_id, n_tokens, n_bytes,
        {byte_scores}
    FROM listed
),
every AS (
    SELECT DISTINCT candidate_id, task, expert, instance_id FROM token
)
SELECT candidate_id, task, expert, instance_id,
    coalesce(n_tokens, 0) AS n_tokens,
    coalesce(n_bytes, 0) AS n_bytes,
    scored.* EXCLUDE (expert, instance_id, n_tokens, n_bytes)
FROM every LEFT JOIN scored USING (expert, instance_id)
ORDER BY expert, instance_id;

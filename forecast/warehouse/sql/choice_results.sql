-- Adds one row per item of one candidate and task of direct evaluation.
-- The option with the highest log-probability per character is the model's answer (OLMES's cloze form). Where
-- several options tie for the highest, each is taken with equal chance: an answer among k gives 1/k.
-- Sources: tokens (rows of the options; `expert` holds the option's index),
--          choice_items (task, instance_id, choice, n_characters, is_answer),
--          dropped_choices (task, instance_id that some candidate could not read).
INSERT INTO choice_results
WITH option AS (
    SELECT candidate_id, task, instance_id, expert::INTEGER AS choice,
        sum(logprob::DOUBLE ORDER BY position) AS logprob
    FROM tokens
    ANTI JOIN dropped_choices USING (task, instance_id)
    GROUP BY ALL
),
scored AS (
    SELECT *, logprob / n_characters AS score
    FROM option JOIN choice_items USING (task, instance_id, choice)
),
best AS (
    SELECT *, score = max(score) OVER (PARTITION BY instance_id) AS chosen
    FROM scored
)
SELECT candidate_id, task, instance_id,
    (count(*) FILTER (chosen AND is_answer))::DOUBLE / count(*) FILTER (chosen) AS correct,
    min(choice) FILTER (chosen) AS first_choice,
    any_value(choice) FILTER (is_answer) AS answer
FROM best
GROUP BY candidate_id, task, instance_id
ORDER BY instance_id;

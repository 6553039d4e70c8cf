-- Adds direct evaluation's accuracies; a standard error takes two items or more.
INSERT INTO measured
SELECT candidate, task, $metric,
    avg(correct ORDER BY instance_id),
    stddev_samp(correct ORDER BY instance_id) / sqrt(count(*)),
    count(*),
    'direct evaluation'
FROM choice_results JOIN candidates USING (candidate_id)
GROUP BY candidate, task
ORDER BY candidate, task;

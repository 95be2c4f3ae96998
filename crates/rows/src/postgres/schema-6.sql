-- What the first version kept in another way is carried over by code behind the last step (carried.rs): studies of nobody, what is drawn of a study, and
-- the index, which has rows for references that wait.
INSERT INTO meta SELECT 'carry_over', '1' WHERE EXISTS(SELECT 1 FROM site) ON CONFLICT DO NOTHING;

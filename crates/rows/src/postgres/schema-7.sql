-- Codes that most resources of a type have are no longer in the index, which is made again from the bodies behind the last step (carried.rs).
INSERT INTO meta SELECT 'carry_over', '1' WHERE EXISTS(SELECT 1 FROM site) ON CONFLICT DO NOTHING;

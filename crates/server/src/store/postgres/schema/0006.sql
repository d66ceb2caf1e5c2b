-- The ids of the master keys that a node was given: another one becomes current for all nodes only when each of
-- them has it. NULL for a version that does not say.
ALTER TABLE node ADD COLUMN master_keys text[];

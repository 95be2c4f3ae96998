-- The other index of images is of the current ones alone: no look-up by SOP Instance UID can take it for its own.
DROP INDEX instance_series;
CREATE INDEX instance_series ON instance(site,series) WHERE superseded=0;
-- An edge that removes a blob says so first: rows of another edge may not name it meanwhile. ms since 1970; NULL = nobody removes it.
ALTER TABLE orphan ADD COLUMN claimed bigint;

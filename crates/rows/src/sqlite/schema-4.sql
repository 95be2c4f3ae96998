-- Duplicate keys go with their submission.
CREATE INDEX dedupe_seq ON dedupe(seq);

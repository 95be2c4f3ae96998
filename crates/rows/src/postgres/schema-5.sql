-- Submissions are found by those who run the edge: by control id (or SOP Instance UID), the rejected ones, those with an attention mark.
ALTER TABLE submission ADD COLUMN message text, ADD COLUMN called text, ADD COLUMN replays bigint, ADD COLUMN attention text;
CREATE INDEX submission_control ON submission(site,left(control,64),seq) WHERE control IS NOT NULL;
CREATE INDEX submission_rejected ON submission(site,seq) WHERE NOT accepted;
CREATE INDEX submission_attention ON submission(site,seq) WHERE attention IS NOT NULL;

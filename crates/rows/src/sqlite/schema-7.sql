-- Submissions are found by those who run the edge: by control id (or SOP Instance UID), the rejected ones, those with an attention mark.
ALTER TABLE submission ADD COLUMN message TEXT;                        -- ADT^A08, C-STORE CT
ALTER TABLE submission ADD COLUMN called TEXT;                         -- called AE title, MSH-5|MSH-6
ALTER TABLE submission ADD COLUMN replays INT;                         -- seq of the submission it replays
ALTER TABLE submission ADD COLUMN attention TEXT;                      -- why somebody should look at it: identity-conflict, late
CREATE INDEX submission_control ON submission(control) WHERE control IS NOT NULL;
CREATE INDEX submission_rejected ON submission(seq) WHERE receipt=0;
CREATE INDEX submission_attention ON submission(seq) WHERE attention IS NOT NULL;

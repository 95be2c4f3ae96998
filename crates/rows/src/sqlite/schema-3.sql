-- What is kept of rejected submissions, in bytes, so that it can be bounded; blobs left behind by them; deliveries still to be sent.
CREATE TABLE quarantine(seq INTEGER PRIMARY KEY, received INT NOT NULL, bytes INT NOT NULL); -- one row while the original is kept
INSERT INTO quarantine SELECT seq, received, coalesce(length(body),0) FROM submission WHERE receipt=0 AND (body IS NOT NULL OR blob IS NOT NULL);
CREATE TABLE orphan(blob BLOB PRIMARY KEY) WITHOUT ROWID;              -- perhaps referred to by nobody
CREATE INDEX submission_blob ON submission(blob) WHERE blob IS NOT NULL;
CREATE INDEX delivery_due ON delivery(dest,n) WHERE state<3;

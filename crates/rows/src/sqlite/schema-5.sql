-- Whose a thing is: times per sender, replaced Patients, series and images of their study.
ALTER TABLE head ADD COLUMN sender INT;                              -- hash of the sender `applied` is of; NULL = not known
CREATE TABLE heard(rid INT, sender INT, applied INT NOT NULL, PRIMARY KEY(rid,sender)) WITHOUT ROWID; -- the last event of each further sender
CREATE INDEX head_successor ON head(successor) WHERE successor IS NOT NULL;
ALTER TABLE study ADD COLUMN orders TEXT;                            -- JSON: for each order the identifiers that name it
ALTER TABLE study ADD COLUMN attention INT NOT NULL DEFAULT 0;       -- somebody has to look at it
ALTER TABLE study ADD COLUMN drawn_as INT;                           -- rid of its ImagingStudy
ALTER TABLE study ADD COLUMN revision INT NOT NULL DEFAULT 0;        -- counts the changes of it and of everything below
CREATE INDEX study_patient ON study(patient) WHERE patient IS NOT NULL;
CREATE INDEX study_drawn_as ON study(drawn_as) WHERE drawn_as IS NOT NULL;
CREATE TABLE study_number(value TEXT, study TEXT, PRIMARY KEY(value,study)) WITHOUT ROWID; -- numbers of the orders a study names
INSERT INTO study_number SELECT acc_value, uid FROM study WHERE acc_value IS NOT NULL;
UPDATE study SET orders=json_array(json_array(json_array(acc_system,acc_value))) WHERE acc_value IS NOT NULL AND acc_system IS NOT NULL;
ALTER TABLE mpps ADD COLUMN procedure TEXT NOT NULL DEFAULT '';      -- system|value of its Procedure
ALTER TABLE mpps ADD COLUMN patient INT;
UPDATE mpps SET procedure='urn:dicom:uid|urn:oid:'||uid, patient=(SELECT patient FROM study WHERE study.uid=mpps.study);
CREATE INDEX mpps_study ON mpps(study);
CREATE INDEX mpps_patient ON mpps(patient) WHERE patient IS NOT NULL;
CREATE INDEX expectation_step ON expectation(mpps);
CREATE TABLE series_new(study TEXT NOT NULL, uid TEXT NOT NULL, number INT, elements TEXT NOT NULL, PRIMARY KEY(study,uid)) WITHOUT ROWID;
INSERT INTO series_new SELECT study, uid, number, elements FROM series;
INSERT OR IGNORE INTO series_new SELECT DISTINCT i.study, i.series, s.number, s.elements FROM instance i JOIN series s ON s.uid=i.series;
DROP TABLE series;
ALTER TABLE series_new RENAME TO series;
CREATE TABLE instance_new(study TEXT NOT NULL, series TEXT NOT NULL, sop TEXT NOT NULL, superseded INT NOT NULL DEFAULT 0, class TEXT NOT NULL,
  syntax TEXT NOT NULL, number INT, elements TEXT NOT NULL, bytes INT NOT NULL, sha BLOB NOT NULL, blob BLOB NOT NULL, sub INT NOT NULL,
  received INT NOT NULL, PRIMARY KEY(study,series,sop,superseded)) WITHOUT ROWID; -- superseded: 0 = current, else the submission that replaced it
INSERT INTO instance_new SELECT study, series, sop, superseded, class, syntax, number, elements, bytes, sha, blob, sub, received FROM instance;
DROP TABLE instance;
ALTER TABLE instance_new RENAME TO instance;
CREATE INDEX instance_sop ON instance(sop) WHERE superseded=0;

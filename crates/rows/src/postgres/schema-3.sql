-- Whose a thing is: times per sender, replaced Patients, series and images of their study.
ALTER TABLE head ADD COLUMN sender bigint;                           -- hash of the sender `applied` is of; NULL = not known
CREATE TABLE heard(site int NOT NULL, rid bigint NOT NULL, sender bigint NOT NULL, applied bigint NOT NULL, PRIMARY KEY(site,rid,sender));
CREATE INDEX head_successor ON head(site,successor) WHERE successor IS NOT NULL;
ALTER TABLE study ADD COLUMN orders text, ADD COLUMN attention boolean NOT NULL DEFAULT false, ADD COLUMN drawn_as bigint,
  ADD COLUMN revision bigint NOT NULL DEFAULT 0;
ALTER TABLE study ALTER COLUMN uid TYPE text COLLATE "C";
CREATE INDEX study_patient ON study(site,patient) WHERE patient IS NOT NULL;
CREATE INDEX study_drawn_as ON study(site,drawn_as) WHERE drawn_as IS NOT NULL;
CREATE TABLE study_number(site int NOT NULL, value text COLLATE "C" NOT NULL, study text NOT NULL, PRIMARY KEY(site,value,study));
ALTER TABLE mpps ADD COLUMN procedure text NOT NULL DEFAULT '', ADD COLUMN patient bigint;
CREATE INDEX mpps_study ON mpps(site,study);
CREATE INDEX mpps_patient ON mpps(site,patient) WHERE patient IS NOT NULL;
CREATE INDEX expectation_step ON expectation(site,mpps);
-- what is there is carried over for every site: the rows of one are hidden from the others also while the schema changes
ALTER TABLE study NO FORCE ROW LEVEL SECURITY;
ALTER TABLE series NO FORCE ROW LEVEL SECURITY;
ALTER TABLE instance NO FORCE ROW LEVEL SECURITY;
ALTER TABLE mpps NO FORCE ROW LEVEL SECURITY;
INSERT INTO study_number SELECT site, acc_value, uid FROM study WHERE acc_value IS NOT NULL;
UPDATE study SET orders=jsonb_build_array(jsonb_build_array(jsonb_build_array(acc_system,acc_value)))::text WHERE acc_value IS NOT NULL AND acc_system IS NOT NULL;
UPDATE mpps m SET procedure='urn:dicom:uid|urn:oid:'||m.uid, patient=(SELECT patient FROM study s WHERE s.site=m.site AND s.uid=m.study);
ALTER TABLE series DROP CONSTRAINT series_pkey, ADD PRIMARY KEY(site,study,uid);
INSERT INTO series(site,uid,study,number,elements) SELECT DISTINCT i.site, i.series, i.study, s.number, s.elements FROM instance i
  JOIN series s ON s.site=i.site AND s.uid=i.series ON CONFLICT DO NOTHING;
DROP INDEX series_study;
DROP INDEX IF EXISTS instance_series;
ALTER TABLE instance DROP CONSTRAINT instance_pkey, ADD PRIMARY KEY(site,study,series,sop,superseded);
CREATE INDEX instance_sop ON instance(site,sop) WHERE superseded=0;
ALTER TABLE study FORCE ROW LEVEL SECURITY;
ALTER TABLE series FORCE ROW LEVEL SECURITY;
ALTER TABLE instance FORCE ROW LEVEL SECURITY;
ALTER TABLE mpps FORCE ROW LEVEL SECURITY;

-- Who asked for a destination: the key that last wrote its Subscription. `?` = not known, which is nobody's key: it is to be written again.
ALTER TABLE destination ADD COLUMN owner text;                         -- NULL = written where no key is needed
-- what is there is carried over for every site: the rows of one are hidden from the others also while the schema changes
ALTER TABLE head NO FORCE ROW LEVEL SECURITY;
ALTER TABLE version NO FORCE ROW LEVEL SECURITY;
ALTER TABLE submission NO FORCE ROW LEVEL SECURITY;
ALTER TABLE destination NO FORCE ROW LEVEL SECURITY;
ALTER TABLE delivery NO FORCE ROW LEVEL SECURITY;
-- a Subscription of the versions before got its destination a moment after it was written
INSERT INTO destination(site,ref,cursor_vid,next_n,state) SELECT h.site, 'Subscription/'||h.fid, h.vid, 1, 0 FROM head h
  WHERE h.rt=129 AND NOT h.deleted ON CONFLICT DO NOTHING;
DELETE FROM destination d WHERE NOT EXISTS(SELECT 1 FROM head h WHERE h.site=d.site AND h.rt=129 AND NOT h.deleted AND 'Subscription/'||h.fid=d.ref);
DELETE FROM delivery o WHERE NOT EXISTS(SELECT 1 FROM destination d WHERE d.site=o.site AND d.ref=o.dest);
UPDATE destination d SET owner=nullif(coalesce((SELECT coalesce(s.identity,'') FROM head h JOIN version v ON v.site=h.site AND v.rid=h.rid
  JOIN submission s ON s.site=v.site AND s.seq=v.sub WHERE h.site=d.site AND h.rt=129 AND 'Subscription/'||h.fid=d.ref AND s.kind=4
  ORDER BY v.vid DESC LIMIT 1),'?'),'');
ALTER TABLE head FORCE ROW LEVEL SECURITY;
ALTER TABLE version FORCE ROW LEVEL SECURITY;
ALTER TABLE submission FORCE ROW LEVEL SECURITY;
ALTER TABLE destination FORCE ROW LEVEL SECURITY;
ALTER TABLE delivery FORCE ROW LEVEL SECURITY;

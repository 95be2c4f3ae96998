-- Who delivers to a destination, and since which change of hands: an edge that lost its lock writes under an old epoch, and is refused.
CREATE TABLE deliverer(site int NOT NULL, ref text NOT NULL, epoch bigint NOT NULL, PRIMARY KEY(site,ref));

-- The log's only row, made at the first start. The lock below orders those who draw incarnations.
INSERT INTO txlog.log (log_id) VALUES (%(log_id)s) ON CONFLICT DO NOTHING

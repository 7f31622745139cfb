-- The keys that a workflow holds alone for as long as it runs, whoever runs it.
ALTER TABLE txlog.workflows ADD COLUMN lock_keys text[] NOT NULL DEFAULT '{}';

-- For this transaction: what is unfinished is found by its index, however the table's size tempts to read it all.
SELECT set_config('enable_seqscan', 'off', true)

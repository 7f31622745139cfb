select number, adopted from pincex.adopt_epoch(%(log_id)s, %(epoch)s::bigint)

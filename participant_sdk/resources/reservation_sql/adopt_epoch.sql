-- Adopt the epoch if it is higher; the row returned holds the one in force afterwards. Zero only makes the log known.
insert into pincex.logs as l (log_id, epoch) values (%(log_id)s, %(epoch)s)
on conflict (log_id) do update set epoch = greatest(l.epoch, excluded.epoch)
returning log, epoch

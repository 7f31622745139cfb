select at, key, token
from pincex.fence(%(log)s::smallint, %(places)s, %(keys)s, %(tokens)s, %(shared)s, %(now_unix_ms)s::bigint)

select part, at, phase, heuristic, vote, answer
from pincex.apply_current(
    $1, $2, current_setting('pincex.worker')::smallint,
    $3, $4, $5,
    $6,
    $7, $8, $9, $10, $11, $12, $13,
    $14, $15
)

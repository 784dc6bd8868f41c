# I4: a slot ends active_ttl after the last sign of life, and a grace for touches on their way (1.2 s).
limits max_active=1 active_ttl=10
at 0s     arrive a -> active
at 1s     arrive b -> queued 1
at 8s     touch a
at 10s    touch b
at 19.1s  tick
at 19.1s  look a -> active
at 19.2s  tick
at 19.2s  look a -> unknown
at 19.2s  look b -> released
# A touch says when the visitor was seen, not when the news came.
limits max_active=1 active_ttl=10
at 20s    claim b -> active
at 25s    touch b 3s
at 33.1s  tick
at 33.1s  look b -> active
at 33.2s  tick
at 33.2s  look b -> unknown

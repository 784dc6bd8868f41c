# A released visitor that does not come has its ticket back, and the slot goes on.
limits max_active=1 claim_ttl=5
at 0s    arrive a -> active
at 0s    arrive b -> queued 1
at 0s    arrive c -> queued 2
at 1s    leave a
at 1s    look b -> released
at 5.9s  tick
at 5.9s  look b -> released
at 6s    tick
at 6s    look b -> absent 1
at 6s    look c -> released
at 6.5s  arrive b -> queued 1
at 7s    leave c
at 7s    look b -> released
at 7s    arrive b -> active

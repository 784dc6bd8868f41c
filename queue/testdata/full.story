# Beyond queue_max nothing is stored.
limits max_active=1 queue_max=2
at 0s   arrive a -> active
at 0s   arrive b -> queued 1
at 0s   arrive c -> queued 2
at 0s   arrive d -> queue full
at 0s   look d -> unknown
at 1s   leave c
at 1s   arrive d -> queued 2

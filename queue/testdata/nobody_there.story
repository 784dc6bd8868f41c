# When everybody in line is absent, a newcomer is let in at once; the first one back gets the next slot.
limits max_active=2 queue_absent=1 active_ttl=60
at 0s    arrive a -> active
at 0s    arrive b -> active
at 0s    arrive c -> queued 1
at 2s    tick
at 2s    look c -> absent 1
at 3s    leave a
at 3s    arrive d -> active
at 4s    leave d
at 5s    arrive c -> active

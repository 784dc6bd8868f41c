# A new leader takes the time without one out of everybody's account, and holds expiry for 2 s.
limits max_active=1 active_ttl=10
at 0s    arrive a -> active
at 0s    arrive b -> queued 1
# Nobody led from 5 s to 30 s.
at 30s   resume 25s
at 30.1s tick
at 30.1s look a -> active
at 36.1s tick
at 36.1s look a -> active
at 36.2s tick
at 36.2s look a -> unknown
at 36.2s look b -> released
# Without a gap the hold alone keeps those whose touches are still on their way.
at 36.2s claim b -> active
at 47s   resume 0s
at 48.9s tick
at 48.9s look b -> active
at 49s   touch b 4s
at 49.5s tick
at 49.5s look b -> active

# I3: an absent visitor is passed over, keeps its ticket, and is first again when it is back.
limits max_active=1 queue_absent=5 queue_ttl=60
at 0s    arrive a -> active
at 0s    arrive b -> queued 1
at 4s    arrive c -> queued 2
at 6s    tick
at 6s    look b -> absent 1
at 6s    touch a
at 7s    leave a
at 7s    look c -> released
at 8s    touch b
at 8s    look b -> queued 1
at 9s    arrive d -> queued 2
at 9s    leave c
at 9s    look b -> released
# Unseen for queue_ttl it leaves the queue.
at 9s    claim b -> active
at 60s   touch b
at 69.6s tick
at 69.6s look d -> absent 1
at 69.7s tick
at 69.7s look d -> unknown

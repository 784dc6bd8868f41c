# A poll takes the slot, and its answer may be lost: who is never heard of again has its place back, and who is heard of lets go of it.
limits max_active=1 active_ttl=5 queue_ttl=100
at 0s    arrive a -> active
at 0s    arrive b -> queued 1
at 0s    arrive c -> queued 2
at 0s    arrive d -> queued 3
at 1s    leave a
at 1s    reserve b -> active
at 1.9s  reserve b -> active
# what it asked before, and what it asks again without having heard, shows nothing
at 2s    ask b 1.5s -> active
at 2s    ask b -> active
at 2s    stay b -> active
at 7s    touch c -> queued 1
at 8.1s  tick
at 8.1s  look b -> active
at 8.2s  tick
at 8.2s  look b -> absent 1
at 8.2s  look c -> released
at 8.2s  look d -> queued 2
# back before its place is forgotten
at 90s   ask b -> queued 1
at 90s   leave c
at 90s   look b -> released
at 90s   reserve b -> active
at 91s   touch b -> active
at 96s   touch d -> queued 1
at 97.1s tick
at 97.2s tick
# it has been inside, and its stay has ended as any other's
at 97.2s look b -> unknown
at 97.2s look d -> released
at 97.3s reserve d -> active
at 97.4s claim d -> active
at 110s  tick
at 110s  look d -> unknown
# a reservation ends when its place is forgotten
limits active_ttl=50 queue_ttl=20
at 200s  arrive e -> active
at 200s  arrive f -> queued 1
at 201s  leave e
at 201s  reserve f -> active
at 252.1s tick
at 252.1s look f -> active
at 252.2s tick
at 252.2s look f -> unknown
# nobody's
at 300s  reserve g -> no such visitor

# A first hit has its slot at once. Whose cookie does not come back gives it on after first_hit_ttl (and a grace of 1.2 s), once somebody waits.
limits max_active=2 active_ttl=60 first_hit_ttl=20 queue_absent=90 queue_ttl=600 queue_max=2
at 0s     enter ghost -> active
at 0s     enter guest -> active
at 0s     enter late -> no slot
at 5s     touch guest
at 10s    arrive b -> queued 1
at 21.1s  tick
at 21.1s  look ghost -> active
at 21.2s  tick
at 21.2s  look ghost -> absent 1
at 21.2s  look guest -> active
at 21.2s  look b -> released
at 22s    claim b -> active
# The slot that was taken back takes no place of queue_max.
at 22s    arrive c -> queued 2
at 22s    arrive d -> queued 3
at 22s    arrive e -> queue full
# Back, it is before all who wait: it came first.
at 30s    arrive ghost -> queued 1
at 30s    look c -> queued 2
at 31s    leave guest
at 31s    look ghost -> released
at 31s    claim ghost -> active
# Nobody waits: the slot is kept for active_ttl, and whoever comes meanwhile confirms it.
at 31s    leave b
at 31s    leave c
at 31s    leave d
at 32s    enter quiet -> active
at 85s    touch ghost
at 92s    tick
at 92s    look quiet -> active
at 92.5s  arrive quiet -> active
at 93s    arrive f -> queued 1
at 120s   tick
at 120s   look quiet -> active
at 121s   leave quiet
at 121s   look f -> released
at 122s   leave f
# Otherwise active_ttl is the end of it, and nothing is left to come back to.
at 123s   enter gone -> active
at 184.1s tick
at 184.1s look gone -> active
at 184.2s tick
at 184.2s look gone -> unknown
# No more are taken back than wait, the oldest first.
limits max_active=3
at 200s   enter one -> active
at 201s   enter two -> active
at 202s   enter three -> active
at 230s   arrive g -> queued 1
at 230s   tick
at 230s   look one -> absent 1
at 230s   look two -> active
at 230s   look three -> active
# A second enter is the first one, sent again: it brings no cookie.
at 231s   enter two -> active
at 232s   arrive h -> queued 2
at 232s   tick
at 232s   look two -> active
at 232s   look three -> absent 2
# A long first visit keeps its slot as long as its bytes move.
at 233s   stay two
at 234s   arrive i -> queued 3
at 254.1s tick
at 254.1s look two -> active
at 254.2s tick
at 254.2s look two -> absent 2
# A new leader holds this expiry too.
limits max_active=4
at 260s   enter four -> active
at 261s   arrive j -> queued 4
at 280s   resume 5s
at 286.1s tick
at 286.1s look four -> active
at 286.2s tick
at 286.2s look four -> absent 4
# Off, a first hit is like any other visit.
limits max_active=5 first_hit_ttl=0
at 290s   enter five -> active
at 290s   arrive k -> queued 5
at 340s   tick
at 340s   look five -> active

# Two slots. The third visitor waits, and is let in as soon as one leaves.
limits max_active=2
at 0s   arrive a -> active
at 0s   arrive b -> active
at 1s   arrive c -> queued 1
at 1s   arrive d -> queued 2
at 2s   leave a
at 2s   look c -> released
at 2s   look d -> queued 1
at 3s   claim c -> active
# Asking again changes nothing.
at 3s   claim c -> active
at 3s   arrive d -> queued 1
at 3s   claim d -> queued 1

# Lowering the limit expels nobody; it stops admission until enough have left (I1).
limits max_active=2
at 0s   arrive a -> active
at 0s   arrive b -> active
at 0s   arrive c -> queued 1
at 0s   arrive d -> queued 2
limits max_active=1
at 1s   look a -> active
at 1s   look b -> active
at 1s   leave a
at 1s   look c -> queued 1
at 1s   leave b
at 1s   look c -> released
at 1s   look d -> queued 1
# Raising it promotes at once.
limits max_active=3
at 2s   look d -> released
# Nobody gets in with none.
limits max_active=0
at 3s   enter e -> no slot
at 3s   arrive e -> queued 1

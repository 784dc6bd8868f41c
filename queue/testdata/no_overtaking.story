# I2: who polls first is not who gets in first, and a newcomer never passes those who wait.
limits max_active=1
at 0s   arrive a -> active
at 1s   arrive b -> queued 1
at 1s   arrive c -> queued 2
at 2s   leave a
at 2s   claim c -> queued 1
at 2s   enter d -> no slot
at 2s   arrive d -> queued 2
at 2s   claim b -> active
at 2s   look c -> queued 1
at 2s   look d -> queued 2

package cluster

// The keys of Raft's stable store.
var (
	keyCurrentTerm   = []byte("CurrentTerm")
	keyVoteTerm      = []byte("LastVoteTerm")
	keyVoteCandidate = []byte("LastVoteCand")
)

// writeVote keeps a vote. The library writes it as two keys, first the term and then the candidate. A process that is
// killed in between has the new term beside the old candidate on its disk, which is a vote that it never cast
// (hashicorp/raft issue 661). So the store keeps the term in memory until the candidate comes, and writes the term last.
//
// raft-boltdb has no call that writes two keys in one transaction, and it need not have: killed in between, the disk now
// holds the new candidate beside an old term. Raft has written its current term before it votes in it, so the old one is
// over, and a request from a term that is over is refused before any vote is looked at. A vote counts from the moment
// its term is on disk, and then its candidate is too.
func (s *store) writeVote(term uint64, candidate []byte) error {
	if err := s.bolt.Set(keyVoteCandidate, candidate); err != nil {
		return err
	}
	return s.bolt.SetUint64(keyVoteTerm, term)
}

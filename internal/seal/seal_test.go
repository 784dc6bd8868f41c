package seal

import (
	"crypto/hmac"
	"crypto/sha256"
	"testing"

	"pgregory.net/rapid"
)

// Proofs under keys in any order are what HMAC-SHA256 gives for each alone.
func TestSumIsHMAC(t *testing.T) {
	keys := []Key{NewKey(1), NewKey(2), NewKey(1)}
	rapid.Check(t, func(t *rapid.T) {
		k := rapid.SampledFrom(keys).Draw(t, "key")
		message := rapid.SliceOf(rapid.Byte()).Draw(t, "message")
		plain := hmac.New(sha256.New, k.Secret[:])
		plain.Write(message)
		got, want := k.Sum(message), [Size]byte(plain.Sum(nil))
		if got != want || !k.Verify(message, want[:]) {
			t.Fatalf("got %x, want %x", got, want)
		}
		want[0] ^= 1
		if k.Verify(message, want[:]) {
			t.Fatal("another proof is taken")
		}
	})
}

func BenchmarkSum(b *testing.B) {
	k, message := NewKey(1), make([]byte, 38)
	b.ReportAllocs()
	for b.Loop() {
		k.Sum(message)
	}
}

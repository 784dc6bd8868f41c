package main

import "testing"

func TestShareDescriptors(t *testing.T) {
	for _, c := range []struct{ files, asked, all, clients int }{
		{256, 0, 176, 132},
		{1024, 0, 896, 672},
		{20_000, 0, 18_976, 14_232},
		{1 << 20, 0, 1_047_552, 785_664},
		{20_000, 5000, 18_976, 5000},
		{1024, 5000, 896, 896}, // as many as there can be
		{40, 0, 16, 12},        // something has to be served
		{0, 0, 0, 0},           // nobody knows
		{0, 5000, 0, 5000},
	} {
		if all, clients := shareDescriptors(c.files, c.asked); all != c.all || clients != c.clients {
			t.Errorf("%d files, %d asked: got %d, %d, want %d, %d", c.files, c.asked, all, clients, c.all, c.clients)
		}
	}
}

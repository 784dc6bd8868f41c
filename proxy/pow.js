(function () {
  "use strict";
  // mine answers the first nonce from a number on for which the SHA-256 of text and nonce begins with so many zero
  // bits, or -1 when there is none among the next count. It is complete in itself, since it runs in a worker too. Pages
  // of plain http have no crypto.subtle, and calling that once for each hash is slower than this.
  function miner() {
    var K = [], H = [], W = new Int32Array(64), n, i;
    function fraction(x) { return ((x - Math.floor(x)) * 4294967296) | 0; }
    for (n = 2; K.length < 64; n++) { // the primes, of which the constants are made
      for (i = 2; i * i <= n && n % i; i++) { /* a divisor? */ }
      if (i * i > n) {
        if (H.length < 8) { H.push(fraction(Math.sqrt(n))); }
        K.push(fraction(Math.pow(n, 1 / 3)));
      }
    }
    return function (text, bits, from, count) {
      var to = from + count, message, a, b, c, d, e, f, g, h, x, y, t, u;
      for (; from < to; from++) {
        message = text + from;
        for (i = 0; i < 16; i++) { W[i] = 0; }
        for (i = 0; i < message.length; i++) { W[i >> 2] |= message.charCodeAt(i) << (24 - 8 * (i & 3)); }
        W[i >> 2] |= 128 << (24 - 8 * (i & 3));
        W[15] = 8 * message.length; // 55 bytes at most: one block
        for (i = 16; i < 64; i++) {
          x = W[i - 15];
          y = W[i - 2];
          W[i] = W[i - 16] + ((x >>> 7 | x << 25) ^ (x >>> 18 | x << 14) ^ x >>> 3) + W[i - 7] + ((y >>> 17 | y << 15) ^ (y >>> 19 | y << 13) ^ y >>> 10);
        }
        a = H[0]; b = H[1]; c = H[2]; d = H[3]; e = H[4]; f = H[5]; g = H[6]; h = H[7];
        for (i = 0; i < 64; i++) {
          t = h + ((e >>> 6 | e << 26) ^ (e >>> 11 | e << 21) ^ (e >>> 25 | e << 7)) + (e & f ^ ~e & g) + K[i] + W[i] | 0;
          u = ((a >>> 2 | a << 30) ^ (a >>> 13 | a << 19) ^ (a >>> 22 | a << 10)) + (a & b ^ a & c ^ b & c) | 0;
          h = g; g = f; f = e; e = d + t | 0; d = c; c = b; b = a; a = t + u | 0;
        }
        if ((H[0] + a) >>> (32 - bits) === 0) { return from; }
      }
      return -1;
    };
  }

  var slice = 2048;

  // inSlices works where there is no worker, and leaves the page time for itself.
  function inSlices(text, bits, tell, done) {
    var mine = miner(), from = 0;
    (function next() {
      var nonce = mine(text, bits, from, slice);
      if (nonce >= 0) { done(text + nonce); return; }
      from += slice;
      tell(from);
      setTimeout(next, 0);
    })();
  }

  // owrWork solves a challenge: tell hears how likely it was to be solved by now, from 0 to 1, and done the solution.
  window.owrWork = function (challenge, bits, tell, done) {
    var text = challenge + ".", worker = null, address = "", over = false;
    function tried(n) { if (!over) { tell(1 - Math.exp(-n / Math.pow(2, bits))); } }
    function end(solution) {
      if (over) { return; }
      over = true;
      if (worker) { worker.terminate(); }
      if (address) { URL.revokeObjectURL(address); }
      done(solution);
    }
    function without() {
      if (worker) { worker.terminate(); worker = null; }
      if (!over) { inSlices(text, bits, tried, end); }
    }
    try {
      address = URL.createObjectURL(new Blob(["var mine=(" + miner + ")();onmessage=function(e){for(var d=e.data,n=0,r;" +
        "(r=mine(d.text,d.bits,n,32768))<0;)postMessage({tried:n+=32768});postMessage({nonce:r})}"], { type: "text/javascript" }));
      worker = new Worker(address);
      worker.onmessage = function (e) { if (e.data.nonce >= 0) { end(text + e.data.nonce); } else { tried(e.data.tried); } };
      worker.onerror = function (e) { if (e.preventDefault) { e.preventDefault(); } without(); };
      worker.postMessage({ text: text, bits: bits });
    } catch (e) {
      without();
    }
  };
})();

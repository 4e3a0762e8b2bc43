//go:build purego || !(amd64 || arm64)

package crypto

// x/crypto's portable ChaCha20-Poly1305 moves the packet's Poly1305 key to the
// heap. Builds for speed do not use it.
const chachaAllocs = 1

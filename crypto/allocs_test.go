//go:build !purego && (amd64 || arm64)

package crypto

const chachaAllocs = 0

// Wycheproof's vectors are 109 MB unpacked, so the tests that read them are a module of their own.
module spigot/crypto/wycheproof

go 1.26.4

require (
	github.com/c2sp/wycheproof v0.0.0-20260902155932-3fa63dd0344a
	golang.org/x/crypto v0.58.0
	spigot v0.0.0
)

require (
	github.com/klauspost/cpuid/v2 v2.4.2 // indirect
	golang.org/x/sys v0.49.0 // indirect
)

replace spigot => ../..

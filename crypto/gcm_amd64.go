//go:build !purego

package crypto

//go:generate go run -C _asm ./gcm -out ../gcm_amd64.s

var gcmKernels = [numTiers]gcmKernel{
	VAES512: {
		expand: expandGCM,
		seal:   [3]func(*Job, *uint8, int){gcmSeal128vaes512, gcmSeal192vaes512, gcmSeal256vaes512},
		open:   [3]func(*Job, *uint8, int){gcmOpen128vaes512, gcmOpen192vaes512, gcmOpen256vaes512},
	},
}

// expandGCM makes the round keys and the powers of H, without any table.
func expandGCM(g *gcmKey, key []byte) {
	var decrypt aesSchedule // of no use here
	rounds := expandAES(&g.rounds, &decrypt, key)
	gcmSetup(g, rounds)
	clear(decrypt[:])
}

// gcmSetup makes key's powers of H of its round keys.
//
//go:noescape
func gcmSetup(key *gcmKey, rounds int)

// The kernels seal or open jobs[i] for each i of group, n of them, and set OK.
// Seal writes IV and ICV; Open leaves the text of a refused packet as garbage.

//go:noescape
func gcmSeal128vaes512(jobs *Job, group *uint8, n int)

//go:noescape
func gcmSeal192vaes512(jobs *Job, group *uint8, n int)

//go:noescape
func gcmSeal256vaes512(jobs *Job, group *uint8, n int)

//go:noescape
func gcmOpen128vaes512(jobs *Job, group *uint8, n int)

//go:noescape
func gcmOpen192vaes512(jobs *Job, group *uint8, n int)

//go:noescape
func gcmOpen256vaes512(jobs *Job, group *uint8, n int)

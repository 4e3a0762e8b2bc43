//go:build !purego

package crypto

//go:generate go run -C _asm ./gcm -out ../gcm_amd64.s

var gcmKernels = [numTiers]gcmKernel{
	VAES256: {
		expand: expandGCM,
		seal: [3]gcmSizes{
			{2: gcmSeal128vaes256},
			{2: gcmSeal192vaes256},
			{2: gcmSeal256vaes256},
		},
		open: [3]gcmSizes{
			{2: gcmOpen128vaes256},
			{2: gcmOpen192vaes256},
			{2: gcmOpen256vaes256},
		},
	},
	VAES512: {
		expand: expandGCM,
		seal: [3]gcmSizes{
			{gcmSeal128vaes512of1, gcmSeal128vaes512of2, gcmSeal128vaes512},
			{gcmSeal192vaes512of1, gcmSeal192vaes512of2, gcmSeal192vaes512},
			{gcmSeal256vaes512of1, gcmSeal256vaes512of2, gcmSeal256vaes512},
		},
		open: [3]gcmSizes{
			{gcmOpen128vaes512of1, gcmOpen128vaes512of2, gcmOpen128vaes512},
			{gcmOpen192vaes512of1, gcmOpen192vaes512of2, gcmOpen192vaes512},
			{gcmOpen256vaes512of1, gcmOpen256vaes512of2, gcmOpen256vaes512},
		},
	},
}

// expandGCM makes the round keys and the powers of H, without any table.
func expandGCM(g *gcmKey, key, salt []byte) {
	var decrypt aesSchedule // of no use here
	rounds := expandAES(&g.rounds, &decrypt, key)
	clear(decrypt[:])
	gcmSetup(&g.powers, &g.rounds, rounds)
	for i, b := range salt { // the nonce begins with it, and the first round key is added to the nonce
		g.rounds[0][i] ^= b
	}
}

// gcmSetup makes the powers of H of the keys of so many rounds.
//
//go:noescape
func gcmSetup(powers *[gcmPowers][16]byte, keys *aesSchedule, rounds int)

// The kernels seal or open jobs[i] for each i of group, n of them, and set OK.
// The IV is in the packet; Seal writes the ICV. Open leaves the text of a
// refused packet as garbage. The kernels called of1 and of2 take packets of up
// to 64 and up to 128 bytes, ICV not counted, and n is a multiple of 4; among
// four, one packet may be there several times.

//go:noescape
func gcmSeal128vaes512of1(jobs *Job, group *uint8, n int)

//go:noescape
func gcmSeal128vaes512of2(jobs *Job, group *uint8, n int)

//go:noescape
func gcmSeal128vaes512(jobs *Job, group *uint8, n int)

//go:noescape
func gcmSeal192vaes512of1(jobs *Job, group *uint8, n int)

//go:noescape
func gcmSeal192vaes512of2(jobs *Job, group *uint8, n int)

//go:noescape
func gcmSeal192vaes512(jobs *Job, group *uint8, n int)

//go:noescape
func gcmSeal256vaes512of1(jobs *Job, group *uint8, n int)

//go:noescape
func gcmSeal256vaes512of2(jobs *Job, group *uint8, n int)

//go:noescape
func gcmSeal256vaes512(jobs *Job, group *uint8, n int)

//go:noescape
func gcmOpen128vaes512of1(jobs *Job, group *uint8, n int)

//go:noescape
func gcmOpen128vaes512of2(jobs *Job, group *uint8, n int)

//go:noescape
func gcmOpen128vaes512(jobs *Job, group *uint8, n int)

//go:noescape
func gcmOpen192vaes512of1(jobs *Job, group *uint8, n int)

//go:noescape
func gcmOpen192vaes512of2(jobs *Job, group *uint8, n int)

//go:noescape
func gcmOpen192vaes512(jobs *Job, group *uint8, n int)

//go:noescape
func gcmOpen256vaes512of1(jobs *Job, group *uint8, n int)

//go:noescape
func gcmOpen256vaes512of2(jobs *Job, group *uint8, n int)

//go:noescape
func gcmOpen256vaes512(jobs *Job, group *uint8, n int)

//go:noescape
func gcmSeal128vaes256(jobs *Job, group *uint8, n int)

//go:noescape
func gcmSeal192vaes256(jobs *Job, group *uint8, n int)

//go:noescape
func gcmSeal256vaes256(jobs *Job, group *uint8, n int)

//go:noescape
func gcmOpen128vaes256(jobs *Job, group *uint8, n int)

//go:noescape
func gcmOpen192vaes256(jobs *Job, group *uint8, n int)

//go:noescape
func gcmOpen256vaes256(jobs *Job, group *uint8, n int)

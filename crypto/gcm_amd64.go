//go:build !purego

package crypto

//go:generate go run -C _asm ./gcm -out ../gcm_amd64.s

var gcmKernels = [numTiers]gcmKernel{
	VAES256: {
		expand: expandGCM,
		seal: [3]gcmFuncs{
			{any: gcmSeal128vaes256},
			{any: gcmSeal192vaes256},
			{any: gcmSeal256vaes256},
		},
		open: [3]gcmFuncs{
			{any: gcmOpen128vaes256},
			{any: gcmOpen192vaes256},
			{any: gcmOpen256vaes256},
		},
	},
	VAES512: {
		expand: expandGCM,
		seal: [3]gcmFuncs{
			{small: [3]gcmSmall{gcmSeal128vaes512of4, gcmSeal128vaes512of5, gcmSeal128vaes512of8}, any: gcmSeal128vaes512},
			{small: [3]gcmSmall{gcmSeal192vaes512of4, gcmSeal192vaes512of5, gcmSeal192vaes512of8}, any: gcmSeal192vaes512},
			{small: [3]gcmSmall{gcmSeal256vaes512of4, gcmSeal256vaes512of5, gcmSeal256vaes512of8}, any: gcmSeal256vaes512},
		},
		open: [3]gcmFuncs{
			{small: [3]gcmSmall{gcmOpen128vaes512of4, gcmOpen128vaes512of5, gcmOpen128vaes512of8}, any: gcmOpen128vaes512},
			{small: [3]gcmSmall{gcmOpen192vaes512of4, gcmOpen192vaes512of5, gcmOpen192vaes512of8}, any: gcmOpen192vaes512},
			{small: [3]gcmSmall{gcmOpen256vaes512of4, gcmOpen256vaes512of5, gcmOpen256vaes512of8}, any: gcmOpen256vaes512},
		},
	},
}

// expandGCM makes the round keys and the powers of H, without any table.
func expandGCM(g *gcmKey, key, salt []byte) {
	var decrypt aesSchedule // of no use here
	rounds := expandAES(&g.rounds, &decrypt, key)
	clear(decrypt[:])
	gcmSetup(g, &g.rounds, rounds)
	for i, b := range salt { // the nonce begins with it, and the first round key is added to the nonce
		g.rounds[0][i] ^= b
	}
	for i := range g.counters {
		g.counters[i] = g.rounds[0]
		g.counters[i][15] ^= byte(i + 1)
	}
}

// gcmSetup makes what comes of H, of the keys of so many rounds.
//
//go:noescape
func gcmSetup(into *gcmKey, keys *aesSchedule, rounds int)

// The kernels seal or open the jobs at the offsets of group, n of them, and set OK.
// The IV is in the packet; Seal writes the ICV. Open leaves the text of a
// refused packet as garbage. Those called of4, of5 and of8 are a gcmSmall.

//go:noescape
func gcmSeal128vaes512of4(jobs *Job, group *gcmList, n int, suite *Suite) int

//go:noescape
func gcmSeal128vaes512of5(jobs *Job, group *gcmList, n int, suite *Suite) int

//go:noescape
func gcmSeal128vaes512of8(jobs *Job, group *gcmList, n int, suite *Suite) int

//go:noescape
func gcmSeal128vaes512(jobs *Job, group *gcmList, n int)

//go:noescape
func gcmOpen128vaes512of4(jobs *Job, group *gcmList, n int, suite *Suite) int

//go:noescape
func gcmOpen128vaes512of5(jobs *Job, group *gcmList, n int, suite *Suite) int

//go:noescape
func gcmOpen128vaes512of8(jobs *Job, group *gcmList, n int, suite *Suite) int

//go:noescape
func gcmOpen128vaes512(jobs *Job, group *gcmList, n int)

//go:noescape
func gcmSeal192vaes512of4(jobs *Job, group *gcmList, n int, suite *Suite) int

//go:noescape
func gcmSeal192vaes512of5(jobs *Job, group *gcmList, n int, suite *Suite) int

//go:noescape
func gcmSeal192vaes512of8(jobs *Job, group *gcmList, n int, suite *Suite) int

//go:noescape
func gcmSeal192vaes512(jobs *Job, group *gcmList, n int)

//go:noescape
func gcmOpen192vaes512of4(jobs *Job, group *gcmList, n int, suite *Suite) int

//go:noescape
func gcmOpen192vaes512of5(jobs *Job, group *gcmList, n int, suite *Suite) int

//go:noescape
func gcmOpen192vaes512of8(jobs *Job, group *gcmList, n int, suite *Suite) int

//go:noescape
func gcmOpen192vaes512(jobs *Job, group *gcmList, n int)

//go:noescape
func gcmSeal256vaes512of4(jobs *Job, group *gcmList, n int, suite *Suite) int

//go:noescape
func gcmSeal256vaes512of5(jobs *Job, group *gcmList, n int, suite *Suite) int

//go:noescape
func gcmSeal256vaes512of8(jobs *Job, group *gcmList, n int, suite *Suite) int

//go:noescape
func gcmSeal256vaes512(jobs *Job, group *gcmList, n int)

//go:noescape
func gcmOpen256vaes512of4(jobs *Job, group *gcmList, n int, suite *Suite) int

//go:noescape
func gcmOpen256vaes512of5(jobs *Job, group *gcmList, n int, suite *Suite) int

//go:noescape
func gcmOpen256vaes512of8(jobs *Job, group *gcmList, n int, suite *Suite) int

//go:noescape
func gcmOpen256vaes512(jobs *Job, group *gcmList, n int)

//go:noescape
func gcmSeal128vaes256(jobs *Job, group *gcmList, n int)

//go:noescape
func gcmOpen128vaes256(jobs *Job, group *gcmList, n int)

//go:noescape
func gcmSeal192vaes256(jobs *Job, group *gcmList, n int)

//go:noescape
func gcmOpen192vaes256(jobs *Job, group *gcmList, n int)

//go:noescape
func gcmSeal256vaes256(jobs *Job, group *gcmList, n int)

//go:noescape
func gcmOpen256vaes256(jobs *Job, group *gcmList, n int)

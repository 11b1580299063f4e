package kernel

func vecAdd(dst, a, b []float32)                         { vecAddGeneric(dst, a, b) }
func vecMul(dst, a, b []float32)                         { vecMulGeneric(dst, a, b) }
func vecAxpy(dst, x []float32, s float32)                { vecAxpyGeneric(dst, x, s) }
func vecScale(dst, x []float32, s float32)               { vecScaleGeneric(dst, x, s) }
func vecMulAxpy(dst, a, b []float32, s float32)          { vecMulAxpyGeneric(dst, a, b, s) }
func vecSubMul(dst, x []float32, s float32)              { vecSubMulGeneric(dst, x, s) }
func vecDot(a, b []float32) float32                      { return vecDotGeneric(a, b) }
func vecSumSquares(x []float32) float64                  { return vecSumSquaresGeneric(x) }
func vecMax(x []float32) float32                         { return vecMaxGeneric(x) }
func vecExp(dst, x []float32)                            { vecExpGeneric(dst, x) }
func vecExpSum(dst, x []float32, s float32) float32      { return vecExpSumGeneric(dst, x, s) }
func vecNorm(y, x, w []float32, r, off float32)          { vecNormGeneric(y, x, w, r, off) }
func vecNormDot(dy, x, w []float32, off float32) float32 { return vecNormDotGeneric(dy, x, w, off) }
func vecNormBack(dx, dy, x, w []float32, r, k, off, keep float32) {
	vecNormBackGeneric(dx, dy, x, w, r, k, off, keep)
}
func vecGLU(y, g, u []float32, c1, c3 float32) { vecGLUGeneric(y, g, u, c1, c3) }
func vecGLUBack(dg, du, dy, g, u []float32, c1, c3 float32) {
	vecGLUBackGeneric(dg, du, dy, g, u, c1, c3)
}
func vecRotate(a, b, cos, sin []float32, sign float32) { vecRotateGeneric(a, b, cos, sin, sign) }
func adamW(p, g, m, v []float32, k *adamWScalars)      { adamWGeneric(p, g, m, v, k) }
func vecTranspose(dst []float32, ds int, src []float32, ss, n, d int) {
	vecTransposeGeneric(dst, ds, src, ss, n, d)
}
func tile(steps int, a []float32, ai, ak int, b []float32, bs int, c []float32, cs, cols int, acc bool) {
	tileGeneric(steps, a, ai, ak, b, bs, c, cs, cols, acc)
}

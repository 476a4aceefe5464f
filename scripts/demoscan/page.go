package main

import (
	"bytes"
	"image"
	"image/jpeg"
	"math"
	"math/rand/v2"
	"strings"
)

// A4 at 150 dots an inch, 8 bits of grey.
const (
	width, height = 1240, 1754
	dotsPerInch   = 150
)

// paper is what lies on the glass: ink by pixel, 0 for none to 1 for black.
type paper struct {
	ink         []float32
	random      *rand.Rand
	skew, shift float64 // it never lies quite straight
}

// scan draws lines of text as a device would see them on paper, and returns the JPEG.
func scan(lines []string, seed uint64) ([]byte, error) {
	random := rand.New(rand.NewPCG(seed, 4711))
	p := &paper{ink: make([]float32, width*height), random: random, skew: (random.Float64() - 0.5) * 0.016, shift: random.Float64() * 8}
	const left, top, pitch = 150, 170, 46
	for i, line := range lines {
		y := float64(top + i*pitch)
		switch {
		case line == "-":
			p.stroke(left, y-8, width-110, y-8, 1.2)
		case i == 0:
			p.write(line, left, y, 3.6, 2.1)
		default:
			p.write(line, left, y, 2.45, 1.15)
		}
	}
	p.sign(780, 1610)
	return p.photograph()
}

// write sets text from x on, its baseline at y; unit is the size of a step of the glyphs' grid in pixels.
func (p *paper) write(text string, x, y, unit, pen float64) {
	for _, letter := range text {
		jitter := p.random.Float64() - 0.5 // a worn printer
		for stroke := range strings.FieldsSeq(glyphs[letter]) {
			for i := 0; i+3 < len(stroke); i += 2 {
				at := func(digits string) (float64, float64) {
					return x + float64(digits[0]-'0')*unit, y + jitter - (float64(digits[1]-'0')-2)*unit
				}
				fromX, fromY := at(stroke[i:])
				toX, toY := at(stroke[i+2:])
				p.stroke(fromX, fromY, toX, toY, pen)
			}
		}
		x += 6 * unit
	}
}

// sign puts a signature and the stamp of the goods-in desk.
func (p *paper) sign(x, y float64) {
	fromX, fromY := x, y
	for step := range 160 {
		t := float64(step) / 159
		toX := x + 230*t + 18*math.Sin(23*t)
		toY := y - (34-20*t)*math.Sin(31*t+math.Sin(9*t))
		if step > 0 {
			p.stroke(fromX, fromY, toX, toY, 1.5)
		}
		fromX, fromY = toX, toY
	}
	const centreX, centreY = 330, 1612
	for _, radius := range []float64{78, 70} {
		for step := range 90 {
			a, b := float64(step)*math.Pi/45, float64(step+1)*math.Pi/45
			p.stroke(centreX+radius*math.Cos(a), centreY+radius*math.Sin(a), centreX+radius*math.Cos(b), centreY+radius*math.Sin(b), 1.6)
		}
	}
	p.write("RECEIVED", centreX-57, centreY+6, 2.4, 1.5)
	p.write("2026-11-23", centreX-46, centreY+32, 1.55, 0.9)
}

// stroke draws a line with round ends, pen pixels to each side, turned and moved as the paper lies.
func (p *paper) stroke(fromX, fromY, toX, toY, pen float64) {
	fromX, fromY = fromX-fromY*p.skew+p.shift, fromY+fromX*p.skew
	toX, toY = toX-toY*p.skew+p.shift, toY+toX*p.skew
	dX, dY := toX-fromX, toY-fromY
	length := dX*dX + dY*dY
	minX, maxX := clip(min(fromX, toX)-pen-1, width), clip(max(fromX, toX)+pen+2, width)
	minY, maxY := clip(min(fromY, toY)-pen-1, height), clip(max(fromY, toY)+pen+2, height)
	for y := minY; y < maxY; y++ {
		for x := minX; x < maxX; x++ {
			alongX, alongY := float64(x)-fromX, float64(y)-fromY
			t := 0.0
			if length > 0 {
				t = min(1, max(0, (alongX*dX+alongY*dY)/length))
			}
			distance := math.Hypot(alongX-t*dX, alongY-t*dY)
			ink := float32(min(1, max(0, pen+0.5-distance)))
			p.ink[y*width+x] = max(p.ink[y*width+x], ink)
		}
	}
}

func clip(position float64, limit int) int { return min(limit, max(0, int(position))) }

// photograph adds what light, lamp and sensor do to white paper, and compresses.
func (p *paper) photograph() ([]byte, error) {
	grey := image.NewGray(image.Rect(0, 0, width, height))
	for y := range height {
		for x := range width {
			light := 243.0
			light -= 26 * math.Exp(-float64(x)/28)                             // the shade of the lid at the left
			light -= 10 * math.Exp(-float64(height-y)/40)                      // and at the foot
			light += 2.5 * math.Sin(float64(x)/310) * math.Cos(float64(y)/420) // the paper is wavy
			if hole(x, y) {
				light = 92
			}
			light -= float64(p.ink[y*width+x]) * 196
			light += (p.random.Float64() + p.random.Float64() - 1) * 9 // the sensor's noise
			grey.Pix[y*grey.Stride+x] = uint8(min(255, max(0, light)))
		}
	}
	var out bytes.Buffer
	err := jpeg.Encode(&out, grey, &jpeg.Options{Quality: 58})
	return out.Bytes(), err
}

// hole tells whether the paper is punched there: two holes of 6 mm, 80 mm apart, 12 mm from the edge (ISO 838).
func hole(x, y int) bool {
	const millimetre = dotsPerInch / 25.4
	for _, centreY := range []float64{height/2 - 40*millimetre, height/2 + 40*millimetre} {
		if math.Hypot(float64(x)-12*millimetre, float64(y)-centreY) < 3*millimetre {
			return true
		}
	}
	return false
}

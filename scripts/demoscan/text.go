package main

import "fmt"

const (
	pages        = 3
	linesPerPage = 30
)

// deliveryNote is the text of the pages, a slice of lines each. A line that is a single "-" is a rule.
func deliveryNote() [][]string {
	parts := []string{
		"Hex bolt M8 x 40, zinc", "Washer 8.4, DIN 125", "Ball bearing 6204-2RS", "Gear wheel Z=24, m=2",
		"Shaft 20 x 180, ground", "Seal ring 20/32/7", "Key 6 x 6 x 25", "Grease, 400 g cartridge",
		"Belt XPZ 1250", "Pulley 2 x SPZ 100", "Limit switch, IP 67", "Cable 4 x 1.5, 25 m",
		"Terminal block 2.5", "Hose 1/2\", 10 m", "Filter insert 10 my",
	}
	var note [][]string
	item, total := 0, 0
	for page := range pages {
		lines := []string{
			"CONTOSO LTD - Machine Parts",
			"14 Harbour Road, Northport",
			"",
			fmt.Sprintf("DELIVERY NOTE 4711                   Page %d of %d", page+1, pages),
			"Order 2026-0815   Customer: Fabrikam Inc, Goods In",
			"-",
			"Item  Part                       Quantity   Price   Total",
			"-",
		}
		for len(lines) < linesPerPage-2 {
			quantity, price := 2+item*7%40, 35+item*item*13%900
			total += quantity * price
			lines = append(lines, fmt.Sprintf("%4d  %-25s  %8d  %6s  %6s", item+1, parts[item%len(parts)], quantity, money(price), money(quantity*price)))
			item++
		}
		lines = append(lines, "-", fmt.Sprintf("%-46s %9s", "Carried forward", money(total)))
		if page == pages-1 {
			lines[linesPerPage-1] = fmt.Sprintf("%-46s %9s", "Total EUR", money(total))
		}
		note = append(note, lines)
	}
	return note
}

func money(cents int) string { return fmt.Sprintf("%d.%02d", cents/100, cents%100) }

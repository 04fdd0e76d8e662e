package admin

// RouteList lists what a plane answers, for whichever host, by method.
func RouteList(o Options) (map[string][]string, error) {
	shared, _, err := (&Plane{options: o}).routers()
	if err != nil {
		return nil, err
	}
	return shared.List(), nil
}

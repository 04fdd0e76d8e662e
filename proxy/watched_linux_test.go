package proxy

const watcherIsBlind = false

"""`make dashboards-drill`: half an hour of incidents, and how soon the dashboards tell of each."""

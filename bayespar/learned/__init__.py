"""Planners that were learned, or that someone else made: trained here, compared with BAIL, and audited."""

"""web2py reads this file: who answers the errors that nobody has handled."""

routes_onerror = [("shop/500", "/shop/default/sorry")]

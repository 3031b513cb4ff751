"""What is known of names, for people: endpoints of an app, which app serves a service and who said so, routes."""

from collections.abc import Callable, Mapping, Sequence

from nameresolution.directory import Directory
from nameresolution.resolver import AppName
from proxy.control.heard_names import Claimed, HeardNames
from proxy.deciding.callee import ServiceRoutes, parse_callee
from proxy.settings.values import Settings

Claims = Mapping[str, Mapping[str, Claimed]]


class NamingStatus:
    """Reads what others know. routes, claims: those in force; loads: what the engine knows of a cluster's endpoints."""

    def __init__(
        self,
        settings: Settings,
        directory: Directory,
        heard: HeardNames,
        *,
        routes: Callable[[], ServiceRoutes],
        claims: Callable[[], Claims],
        loads: Callable[[str], Sequence[Mapping[str, object]]],
    ) -> None:
        self._settings = settings
        self._directory = directory
        self._heard = heard
        self._routes = routes
        self._claims = claims
        self._loads = loads

    def services(self) -> list[dict[str, str | bool]]:
        """Which app serves which gRPC service, who said so and how; `inForce` is False where another route goes before, or two claim it."""
        find = self._routes().find
        own = self._settings.app_id
        named = [route.partition("=")[::2] for route in self._settings.routes]
        rows: list[dict[str, str | bool]] = [
            {
                "service": service,
                "app": app,
                "how": "pattern" if "{" in service else "route",
                "by": own,
                "inForce": "{" in service or find(service) == app,
            }
            for service, app in named
        ]
        for service, apps in sorted(self._claims().items()):
            rows += [
                {"service": service, "app": app, "how": how, "by": app, "inForce": find(service) == app}
                for app, how in sorted(apps.items())
            ]
        return rows

    def app_serving(self, text: str) -> str:
        """The app that a gRPC service leads to; anything else is as it was."""
        return self._routes().find(text) or text

    def why_nobody(self, service: str) -> str:
        """What to say of a text that is neither an app-id nor a known service."""
        near = self._heard.nearest_services(service)
        meant = f"; did you mean {' or '.join(near)}?" if near else ""
        return f"no app is known to serve {service}{meant}"

    def endpoints(self, app: str | None) -> dict[str, object]:
        """What is known of an app, by its app-id or a service that it serves; of everybody without one."""
        callee = parse_callee(self.app_serving(app), self._settings.namespace) if app else None
        if app and callee is None:
            return {app: {"endpoints": [], "tried": [self.why_nobody(app)]}}
        wanted = AppName(callee.app_id, callee.namespace) if callee else None
        if wanted is not None:
            self._directory.want(wanted)  # who asks again finds the outcome
        found: dict[str, object] = {}
        for known in self._directory.known():
            if app is None or known.name == wanted:
                entry: dict[str, object] = {
                    "endpoints": [
                        {"address": end.address, "instance": end.instance, "source": end.source}
                        for end in known.endpoints
                    ],
                    "loads": list(self._loads(f"peer:{known.name}")),
                    "stale": known.stale,
                    "tried": list(known.tried),
                }
                if not known.endpoints and not self._heard.is_known(known.name):
                    entry["near"] = list(self._heard.nearest(known.name.app_id, known.name.namespace))
                found[str(known.name)] = entry
        return found

    def routes(self) -> list[str]:
        """Explicit routes as written, then learnt ones."""
        learnt = self._routes().learnt or {}
        return [
            *self._settings.routes,
            *(f"{service}={app} (learnt)" for service, app in sorted(learnt.items())),
        ]

"""The demo's day: a region is busy around its noon, while another one sleeps."""

from skylb.tools.demo import DemoSettings
from skylb.tools.demo.day import awake


def test_all_users_are_awake_around_noon_few_at_night_and_never_all_regions_at_once() -> None:
    settings = DemoSettings()
    day = [
        {str(region): awake(settings, region, settings.day_s * part / 360) for region in settings.regions}
        for part in range(360)
    ]
    for region in day[0]:
        counts = [users[region] for users in day]
        assert max(counts) == settings.users
        assert 60 <= counts.count(settings.users) <= 75
        assert 1 <= min(counts) <= settings.users * 0.06
    assert max(sum(users.values()) for users in day) < 2 * settings.users
    assert all(min(users.values()) < settings.users * 0.35 for users in day)
